"""The packages that a deployment installs: their known vulnerabilities, and a list of them."""
