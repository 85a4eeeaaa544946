"""Mapping scenes: the plan, the ledger, the predictor, and the engines that string the stages together."""
