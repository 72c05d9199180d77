"""The recordings API: accepts audio durably and tells what became of it."""
