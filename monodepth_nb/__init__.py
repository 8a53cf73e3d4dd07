"""Self-supervised depth from a single picture: data, network, loss, training and evaluation."""
