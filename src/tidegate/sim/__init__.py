"""A world to try decisions in: the real router and flights, before simulated engines, networks and clients."""
