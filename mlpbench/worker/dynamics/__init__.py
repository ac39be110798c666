"""Batched molecular dynamics in float64, with the forces of any potential.

Positions and velocities of all replicas are integrated together by numpy; only the forces come from the backend, in
its own dtype and on its own device. So the integrator is the same for every architecture, a float32 potential does not
round positions, and a replica that dies leaves the others as they were.
"""
