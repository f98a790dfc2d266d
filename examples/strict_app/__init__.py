"""A library's catalogue as a JSON service: what a strictly typed application of aeros looks like."""
