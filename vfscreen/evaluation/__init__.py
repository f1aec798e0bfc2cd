"""Results against truth: matching, the paper's figures, intervals by patient."""
