"""What an embedding file must be: checksums of its rows and of its outline, and the invariants of the schema."""
