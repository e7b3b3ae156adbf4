"""What was not observed of pictures, given what an operator shows of them."""
