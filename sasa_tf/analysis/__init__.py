"""What models cost, in closed form and measured."""
