import "./style.css";
import { render } from "preact";
import { App } from "./operator/app";

const root = document.getElementById("console");
if (root) render(<App />, root);
