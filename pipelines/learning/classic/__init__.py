"""Classifiers without deep training: HOG and a support vector machine, SIFT words, pretrained features."""
