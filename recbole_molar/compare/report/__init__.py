"""The comparison as one HTML file that needs no network: tables, charts, a map of the items, and what users were recommended."""
