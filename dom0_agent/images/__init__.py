"""VM images: download, verification, unpacking, store with space accounting."""
