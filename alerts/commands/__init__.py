"""The commands of `python -m alerts`, one module a noun; heavy imports wait inside them."""
