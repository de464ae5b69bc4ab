"""Reading of encoded images: orientation, size limit and corruption."""
