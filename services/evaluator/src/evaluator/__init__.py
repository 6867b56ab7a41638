"""The evaluator: candidate beside base model, on rows neither was trained on, with confidence intervals."""
