"""lab/explain"""
