"""HTTP(S) towards the DM server."""
