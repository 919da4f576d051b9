"""The story of `image/demo`: a real OMA DM server manages a VM of a board; each step is checked three ways."""
