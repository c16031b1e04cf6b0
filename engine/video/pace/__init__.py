"""Paces frames if the address itself does not: releases those of segments, and polls for single frames."""
