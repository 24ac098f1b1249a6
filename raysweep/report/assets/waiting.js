// The report's page takes the place of this one once there is a report.
followRun(() => location.reload());
