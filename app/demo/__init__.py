"""The removable demo: people and conversations to look at. Nothing of the app imports it but app/management/demo.py."""
