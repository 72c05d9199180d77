"""What earlier releases say to the database, frozen; one module a release, by its revision."""
