"""Several hosts: how agents find each other, who of them takes part, and what they send over the network."""
