"""The offline trainer: from images to a bundle."""
