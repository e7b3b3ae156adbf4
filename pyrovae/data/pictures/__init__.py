"""What is made of pictures, to be conditioned on."""
