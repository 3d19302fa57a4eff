"""The verdict on what attacks return."""
