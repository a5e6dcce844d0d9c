"""The truth: graphs evaluated in float64 numpy, and a program run step by step with its gradients."""
