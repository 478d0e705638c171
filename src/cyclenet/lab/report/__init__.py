"""lab/report"""
