"""The library of VM images: files, their digests, and serving them to devices."""
