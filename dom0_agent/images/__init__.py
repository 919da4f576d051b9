"""VM images: download, verification, unpacking, store with space accounting. Start at ``README.md`` of this folder."""
