"""The images of a training: listed, labelled, decoded once, kept where a step finds them."""
