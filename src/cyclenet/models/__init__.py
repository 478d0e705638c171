"""The network, from the backbone to the classifier."""
