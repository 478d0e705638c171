"""lab/cost"""
