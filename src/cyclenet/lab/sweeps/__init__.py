"""lab/sweeps"""
