"""What a person looks at in the morning: pictures, page and spreadsheet."""
