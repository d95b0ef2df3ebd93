"""How good attribution is: AbC test cases, the paper's protocol, intervals, reports."""
