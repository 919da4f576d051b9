"""The story that `image/demo` tells: a real OMA DM server manages a VM of a board, and each step is checked three ways."""
