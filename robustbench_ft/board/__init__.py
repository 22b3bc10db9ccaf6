"""Pages made from claims: tables, figures and a static site. Torch-free."""
