"""Pure tensor maths: likelihoods, decoding, smoothing and PSTHs, in torch alone."""
