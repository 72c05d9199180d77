"""The secrets that services need: listed, filled, checked and replaced, never shown."""
