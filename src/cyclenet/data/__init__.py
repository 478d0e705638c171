"""The data path: pairs of image and mask, augmentation, loaders."""
