"""A program as an agent might write it: read a table, aggregate it, draw a chart, summarise."""

import json

import matplotlib.pyplot as plt
import pandas as pd

print("reading sales.csv", flush=True)
sales = pd.read_csv("sales.csv", parse_dates=["day"])
print(f"{len(sales)} rows, {sales['region'].nunique()} regions", flush=True)

sales["revenue"] = sales["units"] * sales["price"]
monthly = sales.pivot_table(
    index=sales["day"].dt.to_period("M"), columns="region", values="revenue", aggfunc="sum"
)
print("drawing chart.png", flush=True)
monthly.plot(title="Revenue by region", ylabel="revenue", xlabel="", figsize=(8, 4))
plt.tight_layout()
plt.savefig("chart.png", dpi=100)

summary = {
    "rows": len(sales),
    "revenue": round(float(sales["revenue"].sum()), 2),
    "best_region": str(monthly.sum().idxmax()),
    "best_month": str(monthly.sum(axis=1).idxmax()),
}
with open("summary.json", "w") as file:
    json.dump(summary, file, indent=2)
print("done", flush=True)
