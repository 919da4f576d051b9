"""Management objects: adapters between tree paths and one part of the device."""
