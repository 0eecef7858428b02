"""Linear and nearest-neighbour probes of frozen features: protocols and `probe`."""
