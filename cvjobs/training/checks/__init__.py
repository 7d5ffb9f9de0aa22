"""What is tried before a training begins: memory, batch size, learning rate, overfitting on purpose."""
