"""The devices of the fleet: registration, credentials, and what the server knows of each management tree."""
