"""Reports: documents for programs, tables and charts for people."""
