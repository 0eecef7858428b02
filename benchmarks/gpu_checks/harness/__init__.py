"""What runs the checks, kills those that hang, and reports on them; it knows none of them."""
