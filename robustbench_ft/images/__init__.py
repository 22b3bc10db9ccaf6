"""Images on disk: files, archives, folders of classes, and where a user keeps them. Torch-free."""
