"""Context modules, a file each; `cyclenet.config.choices.CONTEXTS` lists them."""
