"""The paper's analysis, run: what its propositions say, on quadratics and on trained networks."""
